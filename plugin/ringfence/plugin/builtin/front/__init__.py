"""Front workers: processes that speak HTTP for the gateway and ask its one decision process about every request.

A front holds connections and bodies under way. It has no key, no session, no policy and no audit log: all of those, and
with them each nonce, are in the decision process alone, so a request is accepted once whichever front it comes to.
"""
