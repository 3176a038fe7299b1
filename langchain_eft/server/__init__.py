"""An HTTP server over one engine: OpenAI's routes, and a page on which people mix behaviors.

Needs the extra `serve`. Nothing outside this folder and the command line imports it.
"""
