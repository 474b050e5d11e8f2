"""The request side: `front` speaks HTTP in one process, `engine` owns a device in another."""
