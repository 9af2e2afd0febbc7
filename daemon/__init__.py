"""convertd: turns folders of documents into Markdown."""

__version__ = "0.1.0"
