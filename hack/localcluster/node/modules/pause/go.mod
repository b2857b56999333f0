module kedge.dev/localcluster/pause

go 1.24.0

tool kedge.dev/localcluster/pause
