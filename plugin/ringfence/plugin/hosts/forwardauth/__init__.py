"""HTTP forward-auth: nginx auth_request, Caddy forward_auth and Envoy's HTTP ext_authz."""
