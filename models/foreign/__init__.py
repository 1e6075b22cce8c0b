"""Models of other makers: networks of users and pipelines of libraries."""
