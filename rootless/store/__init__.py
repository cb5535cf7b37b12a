"""Our bytes on disk: blobs by digest, layers by chain_id, images by name, containers, volumes. See docs/store.md."""
