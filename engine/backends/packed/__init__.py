"""The UNet and the decoder with weights packed for the CPU, for the torch backend (docs/adr/0004)."""
