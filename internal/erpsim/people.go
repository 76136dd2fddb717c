package erpsim

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// People makes up persons, companies and ways to reach them: the same ones for the same source of randomness. Every
// domain ends in .example and every North American number is one of the 555-01xx that belong to nobody.
type People struct{ *rand.Rand }

// NewPeople makes up the people of a seed.
func NewPeople(seed uint64) People {
	return People{rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))} //nolint:gosec // made-up data, to be repeatable
}

// A Person is made up.
type Person struct {
	Title, Given, Middle, Family, Suffix string
}

// Chance is true with a probability of percent.
func (p People) Chance(percent int) bool { return p.IntN(100) < percent }

// Person makes up a person; one in seven has a name in another script.
func (p People) Person() Person {
	names := latinNames
	if p.Chance(14) {
		names = otherNames[p.IntN(len(otherNames))]
	}
	made := Person{Given: pick(p, names.given), Family: pick(p, names.family)}
	if p.Chance(20) {
		made.Title = pick(p, titles)
	}
	if p.Chance(15) {
		made.Middle = pick(p, initials)
	}
	if p.Chance(4) {
		made.Suffix = pick(p, suffixes)
	}
	return made
}

// Company makes up a company's name; some hold an emoji, an apostrophe, an ampersand, a comma or another script.
func (p People) Company() string {
	if p.Chance(6) {
		return pick(p, otherCompanies)
	}
	name := pick(p, first) + " " + pick(p, trades)
	switch p.IntN(12) {
	case 0:
		return name + " & Sons"
	case 1:
		return pick(p, latinNames.family) + "'s " + pick(p, trades)
	case 2:
		return name + ", Inc."
	case 3:
		return name + " GmbH"
	case 4:
		return name + " " + pick(p, emoji)
	}
	return name + " " + pick(p, forms)
}

// Domain makes up a mail domain.
func (p People) Domain() string {
	return strings.ToLower(pick(p, first)+"-"+pick(p, trades)) + ".example"
}

// Mailbox makes up a mail address, distinct for distinct n.
func (p People) Mailbox(n int) string {
	return fmt.Sprintf("%s.%d@%s", pick(p, mailboxes), n, p.Domain())
}

// Phone makes up a phone number as people write it, words and extensions included.
func (p People) Phone() string {
	area, line := 201+p.IntN(700), 100+p.IntN(100)
	switch p.IntN(5) {
	case 0:
		return fmt.Sprintf("+1 %d 555 0%d", area, line)
	case 1:
		return fmt.Sprintf("%d.555.0%d", area, line)
	case 2:
		return fmt.Sprintf("(%d) 555-0%d x%d", area, line, 1+p.IntN(99))
	case 3:
		return fmt.Sprintf("%d-555-0%d ask for AP", area, line)
	}
	return fmt.Sprintf("(%d) 555-0%d", area, line)
}

// A Place is a made-up postal address.
type Place struct {
	Street, City, State, Postcode string
}

// Place makes up a postal address.
func (p People) Place() Place {
	town := towns[p.IntN(len(towns))]
	return Place{
		Street: fmt.Sprintf("%d %s", 1+p.IntN(9899), pick(p, streets)), City: town[0], State: town[1], Postcode: town[2],
	}
}

// LongName makes up a name of exactly n letters and spaces.
func (p People) LongName(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(pick(p, first) + " " + pick(p, trades) + " ")
	}
	return b.String()[:n-1] + "x" // a name that ended in a space would be trimmed
}

func pick(p People, from []string) string { return from[p.IntN(len(from))] }

type nameList struct{ given, family []string }

var (
	latinNames = nameList{
		given: strings.Fields(`Ingrid Omar Wanda Luis Priya Chen Amara Tomas Yuki Nadia Felix Greta Ravi Sofia Jonas Leila
			Mateo Hanna Kofi Elena Bruno Mei Anders Zoe Tariq Lucia Pavel Rosa Emil Dalia Hugo Ines Marek Noor Oscar Petra
			Quentin Rita Samir Thea Ulrich Vera Walid Xenia Yara Zeno Zoë José Søren Łucja François Jürgen Siân`),
		family: strings.Fields(`Solheim O'Dea Solheim-O'Dea Haddad Kowalski Moreno Iyer Wang Okafor Novak Tanaka Petrova
			Lindqvist Baum Rao Conti Berg Karimi Silva Virtanen Mensah Popescu Costa Lin Nilsson Martin Aziz Ferrari
			Dvorak Ramos Larsen Saleh Dubois Vega Horak Rahman Wilde Krause Blanc Peña Müller Østergaard Šimek Nguyễn Çelik`),
	}
	otherNames = []nameList{
		{strings.Fields("美咲 健太 陽子 大輔"), strings.Fields("佐藤 鈴木 高橋 渡辺")},
		{strings.Fields("Анна Дмитрий Ольга Сергей"), strings.Fields("Иванова Кузнецов Соколова Лебедев")},
		{strings.Fields("ليلى يوسف مريم خالد"), strings.Fields("الحداد منصور العلي نصار")},
		{strings.Fields("Ελένη Νίκος Μαρία"), strings.Fields("Παπαδοπούλου Γεωργίου Δήμου")},
		{strings.Fields("सुनीता अर्जुन मीरा"), strings.Fields("शर्मा वर्मा पटेल")},
		{strings.Fields("민준 서연 지훈"), strings.Fields("김 이 박")},
	}
	initials  = strings.Split("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "")
	titles    = strings.Fields("Ms. Mr. Mrs. Dr. Prof. Mx.")
	suffixes  = strings.Fields("PhD Jr. Sr. III Esq.")
	forms     = strings.Fields("LLC Ltd Co. Inc. AB S.A. Group Partners")
	emoji     = strings.Fields("🌊 🚚 🥐 🌱 👩‍🔬 🇨🇦 🛠️")
	mailboxes = strings.Fields("ap billing accounts office hello payables finance info invoices team")
	first     = strings.Fields(`Northern Harbor Copper Blue Granite Cedar Silver Prairie Lakeside Amber Iron Maple Coastal
		Summit Willow Falcon Juniper Delta Orchard Quarry Sunset Meadow Anchor Beacon Canyon Ember Fjord Glacier Heron`)
	trades = strings.Fields(`Kelp Freight Bakery Robotics Dental Timber Glass Optics Farms Plumbing Studio Logistics Tools
		Brewing Textiles Solar Motors Print Media Labs Foods Paper Marine Roofing Ceramics Electric Gardens Books`)
	otherCompanies = []string{
		"株式会社さくら商事", "北京海风贸易有限公司", "ООО «Северный ветер»", "شركة الواحة", "Παγωτά Αιγαίο ΑΕ", "한빛 전자",
		"Æther & Çınar İnşaat", "Café “Zum Löwen” – Straße 7", "Ünïcödé Sörvîces ✅",
	}
	streets = []string{
		"Quarry Lane", "Harbor Rd", "Pier Rd", "Elm St, Unit 7", "2nd Ave", "Rue de l'Église", "Straße des 17. Juni",
	}
	towns = [][3]string{
		{"Duluth", "MN", "55802"}, {"Eugene", "OR", "97401"}, {"Toledo", "OH", "43604"}, {"Bangor", "ME", "04401"},
		{"Laredo", "TX", "78040"}, {"Québec", "QC", "G1R 4P5"}, {"Nashua", "NH", "03060"}, {"Yuma", "AZ", "85364"},
	}
)
