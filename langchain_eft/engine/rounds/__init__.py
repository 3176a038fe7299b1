"""One decoding round on the device."""
