// Package torture shows that nothing is lost, invented or misdirected whatever fails. Each run of its campaign draws from
// a seed a company in a simulated ERP, a history of what happens to it, and faults; when the faults have stopped, a
// checker that shares no code with the engine compares Postgres with a model kept beside it. docs/proof.md says more.
package torture
