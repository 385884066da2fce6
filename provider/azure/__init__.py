"""Everything that speaks to Azure. The vendor's types and exceptions stay in this package."""
