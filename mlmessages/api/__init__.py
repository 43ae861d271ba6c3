"""What is said to Mercado Libre and what it answers, as pure values: no event loop, clock, socket or disk."""
