"""Many runs compared: the plan, the child processes, the results, and the page that shows them."""
