#ESCAPE = `   
#Syntax=x/y
FROM a
RUN x `
 y
