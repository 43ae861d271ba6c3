"""One request on its way: repeats, the request budget, the token and one attempt, in one order (`pipeline`)."""
