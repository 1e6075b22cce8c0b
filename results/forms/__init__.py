"""Forms in which results leave the house: sheets of text and figures, with what each format must escape."""
