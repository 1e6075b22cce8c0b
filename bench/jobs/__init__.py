"""Jobs of a sweep: what they are and cost, who does them, and what is counted."""
