"""Etags as servers write them, and as the project keeps them: without quotes."""

from __future__ import annotations


def bare_etag(etag: str) -> str:
    """An etag without its quotes. One that is only weak (`W/"…"`) stays as it is: no server matches on it."""
    return etag if etag.startswith("W/") else etag.strip('"')


def if_match(etag: str) -> dict[str, str]:
    """The condition that an object has this (bare) etag; none where no server could tell."""
    return {"IfMatch": f'"{etag}"'} if etag and not etag.startswith("W/") else {}
