;; A memory that threads share.
;; every level: refused by specification
(module
  (memory (export "memory") 1 1 shared)
  (func (export "_start")))
