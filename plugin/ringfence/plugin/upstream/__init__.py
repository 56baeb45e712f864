"""What an upstream behind a gateway uses: it verifies the identity assertion and the body before it acts."""
