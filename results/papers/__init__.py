"""Papers beside the suite: under what protocol a published number was made, and how it compares with a measured one."""
