"""An HTTP/2 server for one unary gRPC method over a Unix socket: small, bounded and fast (ADR 28).

`connection` is the protocol without I/O (RFC 9113, with HPACK by the `hpack` library), `grpc` the call within a
request, `server` the shell around both.
"""
