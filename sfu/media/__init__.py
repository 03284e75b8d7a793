"""The media plane: one asyncio process a core. Nothing here imports trio, Quart or SQL."""
