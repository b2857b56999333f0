"""The rules of the policy, by what they are about. A rule looks at the situation only, and never does anything."""
