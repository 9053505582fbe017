"""One graph description and the runner that starts it; the only room that knows processes."""
