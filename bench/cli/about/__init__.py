"""Commands about the tool itself: its state here, and what to cite; and completion of what is typed."""
