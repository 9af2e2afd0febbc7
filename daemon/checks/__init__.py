"""What `convertd doctor` looks at. A check is a small function that yields what it finds; see `base`.

Checks change nothing but by canaries, which they take away again, and are safe beside a running daemon.
"""
