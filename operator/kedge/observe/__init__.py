"""What is: the cluster's objects and the pods' measurements, gathered into one frozen Snapshot."""
