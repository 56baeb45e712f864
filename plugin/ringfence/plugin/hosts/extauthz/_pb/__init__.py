"""Generated from the .proto files of the folder above by `make generate`; do not edit."""
