From alpine As base
RuN a
