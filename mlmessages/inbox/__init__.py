"""The protocol that loses no message: intent first, then the marking read, then delivery and acknowledgement."""
