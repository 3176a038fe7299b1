"""Recurrent layers over packed rows: convolutions and scans whose states follow drafts and share prefixes."""
