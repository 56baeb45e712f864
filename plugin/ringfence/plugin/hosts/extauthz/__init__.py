"""Envoy's external authorization over gRPC: `envoy.service.auth.v3.Authorization/Check` (docs/hosts/envoy.md)."""
