"""Data Prep expressions (`sourceType: EXPRESSION`): a text, compiled once, evaluated by column.

    tokens      text -> tokens
    syntax      tokens -> tree, of the nodes in `nodes`, each with its position
    values      the kinds of values, their conversions, comparison and arithmetic
    dates       date patterns: read and write
    functions   the table of all functions, a module a category
    checker     names, numbers of arguments, kinds and literals, before the first request
    operators   what each operator gives
    frame       the records that an expression is evaluated for
    evaluator   tree -> a column of values for a batch of records

Pure: it knows no schema, no batch and no clock. No text of a mapping set ever becomes Python code.
"""
