"""The way to buckets and queues: the only package that knows boto3. Its errors leave it translated."""
