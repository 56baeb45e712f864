;; A memory that grows by the byte.
;; every level: refused by specification
(module
  (memory (export "memory") 1 1 (pagesize 1))
  (func (export "_start")))
