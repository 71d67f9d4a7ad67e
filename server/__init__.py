"""Who asks, may they, and what do they get back? HTTP, accounts, credits, jobs; never imports torch."""
