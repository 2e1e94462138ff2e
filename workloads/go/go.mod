module sandscope/workload

go 1.19
