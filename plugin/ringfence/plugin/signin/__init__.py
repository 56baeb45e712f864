"""Signing in with a browser: OpenID Connect's code flow with PKCE, cookies, and protection against forged requests."""
