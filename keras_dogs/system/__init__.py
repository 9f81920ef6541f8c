"""What knows nothing of pictures: caches, ownership of files, network, child processes, progress, pages."""
