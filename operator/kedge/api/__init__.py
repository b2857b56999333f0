"""The ModelDeployment API: what users write, what Kedge answers, and the CRD generated from both."""
