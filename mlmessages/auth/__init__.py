"""Who asks: access tokens, where they are kept, and how they are refreshed once at a time."""
