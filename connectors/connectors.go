// Package connectors lists every ERP this system can read: the one place where a new connector is added.
package connectors

import (
	"github.com/centime/contactsync/connectors/netsuite"
	"github.com/centime/contactsync/connectors/quickbooks"
	"github.com/centime/contactsync/internal/connector"
)

// Keys are what connectors need of the installation.
type Keys struct {
	QuickBooks quickbooks.App
}

// Allowances are the metered calls a month, of all companies of an ERP together, by the connector's name. Of 0 there is no limit.
func Allowances(quickBooks int64) map[string]int64 {
	if quickBooks == 0 {
		return nil
	}
	return map[string]int64{quickbooks.OnlineName: quickBooks}
}

// All connectors by name.
func All(k Keys) map[string]connector.Connector {
	return map[string]connector.Connector{
		quickbooks.OnlineName: quickbooks.Online(k.QuickBooks),
		netsuite.Name:         netsuite.New(),
	}
}
