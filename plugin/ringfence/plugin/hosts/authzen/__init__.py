"""AuthZEN 1.0: the decision of the policies for anybody else, over the server of forward-auth."""
