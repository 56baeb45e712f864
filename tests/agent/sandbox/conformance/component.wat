;; A component, which is another format.
;; every level: refused by layer
(component)
