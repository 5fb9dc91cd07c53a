"""amfvi on problems with known answers, alone and beside other libraries."""
