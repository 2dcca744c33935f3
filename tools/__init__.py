"""Commands for people who work on this repository; nothing in here is installed."""
