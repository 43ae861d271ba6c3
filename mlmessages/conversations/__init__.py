"""Conversations: read, walked page by page, drained past the cap, fetched in bulk, answered."""
