package netsuite

// Open is New with another clock, and pages of so many rows.
var Open = open
