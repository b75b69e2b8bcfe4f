"""The simulated model: what it understands of a prompt, what it answers, what that costs."""
