"""ReLIC: navigation learned in context over the episodes of a trial (arXiv 2410.02751)."""
