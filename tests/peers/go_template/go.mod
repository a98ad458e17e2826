// Go's own text/template as a peer of khook's templates: `make envtest` builds it.
module khook.dev/go-template

go 1.26.0
