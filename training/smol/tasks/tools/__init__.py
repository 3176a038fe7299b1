"""Conversations that teach calls of any tool with any values, as `langchain_eft.teaching` reads them."""
